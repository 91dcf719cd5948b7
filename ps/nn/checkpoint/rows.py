"""How a service gets the rows of a checkpoint: a new one, or one that has gone on since."""

from __future__ import annotations

from ps import Client, TensorTrain
from ps.errors import ConfigError, InvalidArgument, TableExists
from ps.nn.checkpoint.folder import Manifest


def restored(client: Client, manifest: Manifest, place: str, rewind: bool) -> bool:
    """Gives the service the rows of a checkpoint, which is at `place`. Returns whether it is, byte for byte, the one
    that was saved. Raises TableExists for a service that is not new, unless it may be rewound, and ConfigError if it
    cannot be."""
    try:
        return bool(client.restore(place)["exact"])
    except (TableExists, InvalidArgument) as error:
        if isinstance(error, ConfigError):
            raise
        if not rewind:
            raise TableExists(
                f"the service at {client.address} is not new, so it cannot be what it was at step {manifest.step}: "
                f"{error}. Start a new one; or rewind this one (rewind=True, --rewind), which drops its tables "
                f"{', '.join(manifest.tables)} and fills them from the checkpoint"
            ) from error
        _rewind(client, manifest, place)
        return False


def _rewind(client: Client, manifest: Manifest, place: str) -> None:
    exist = client.tables()
    if cores := [name for name in manifest.tables if name in exist and isinstance(exist[name].cold, TensorTrain)]:
        raise ConfigError(
            f"tables {', '.join(cores)} have tensor-train cores, which come back in a new service only: start one"
        )
    for name in manifest.tables:
        client.drop_table(name, missing_ok=True)
    client.restore(place, tables={name: name for name in manifest.tables})
