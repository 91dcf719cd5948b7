"""The RPCs of a shard: each decodes the request, asks the shard and encodes the answer."""
