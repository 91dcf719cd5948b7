"""RocksDB's settings, each with its reason: many point reads in key order of rows of 64 to 1,024 bytes, little RAM.

Everything that takes RAM is bounded: index, filters and blocks by the block cache, rows not yet written by the write
buffers. Both are given by the shard, whose budget they count in.
"""

from __future__ import annotations

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DataBlockIndexType,
    DBCompressionType,
    Options,
    WriteOptions,
)

BLOCK_BYTES = 8 << 10
BLOOM_BITS = 10
WRITE_BUFFERS = 4
FILE_BYTES = 64 << 20
MAX_OPEN_FILES = 512
MANIFEST_BYTES = 4 << 20


def database_options(cache: Cache, write_buffer_bytes: int, background_jobs: int, direct_reads: bool) -> Options:
    """Returns the options for the database and, since most settings belong to one, for each of its column families."""
    options = Options(raw_mode=True)  # keys and values are bytes; without it the binding pickles them
    options.create_if_missing(True)
    _bound_memory(options, write_buffer_bytes)
    _shape_files(options)
    _quiet(options)
    options.set_block_based_table_factory(_table_format(cache))
    # Flushes and compactions. More would take cores from the shard; with less than two a compaction holds up a flush.
    options.set_max_background_jobs(max(2, background_jobs))
    # Without the page cache, RAM is what was given and no more, but every read that misses the block cache is one of
    # the disk. With it (the default) the kernel keeps what fits into free memory and gives that back on demand.
    options.set_use_direct_reads(direct_reads)
    options.set_use_direct_io_for_flush_and_compaction(direct_reads)
    return options


def write_options() -> WriteOptions:
    """Returns the options of writes. They have no log: a shard that dies loses its rows anyway, and a log would write
    every row once more."""
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign,assignment]  # an attribute; the stub says method
    return options


def _bound_memory(options: Options, write_buffer_bytes: int) -> None:
    # Of all tables together: the largest memtable is flushed when they have this much.
    options.set_db_write_buffer_size(write_buffer_bytes)
    # Of one table: at most so many, then writes wait for the flush. No single one takes it all.
    options.set_write_buffer_size(write_buffer_bytes // WRITE_BUFFERS)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    # Memtables take memory in such steps. The default, an eighth of the buffer, costs each idle table 2 MiB.
    options.set_arena_block_size(min(256 << 10, max(write_buffer_bytes // 64, 16 << 10)))
    # Open files keep a reader in memory each; and a process has 1,024 descriptors by default, sockets included.
    options.set_max_open_files(MAX_OPEN_FILES)


def _table_format(cache: Cache) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    # Else index and filters lie outside the cache, without a bound: 1 to 2 bytes a row.
    table.set_cache_index_and_filter_blocks(True)
    # Those of the youngest files are asked for at every read.
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # One read of the disk brings a block. Sorted batches are sparse (1 % of the rows): bigger blocks bring more that
    # nobody asked for, smaller ones make the index bigger.
    table.set_block_size(BLOCK_BYTES)
    # Which file of several has a row; full filters, not one a block. Of ribbon filters the binding knows nothing.
    table.set_bloom_filter(BLOOM_BITS, False)
    # A hash index in each block was slower than the binary search (keys share two bytes of prefix, blocks have few
    # rows) and takes space.
    table.set_data_block_index_type(DataBlockIndexType.binary_search())
    # The newest format that RocksDB 6.6 and later reads.
    table.set_format_version(5)
    return table


def _shape_files(options: Options) -> None:
    # The last level, nine rows in ten, has no filter: nearly all that is asked for is there, since a filter in RAM
    # (`ps.storage.disk.filter`) has already answered for ids that are not. Saves 1.1 bytes a row of cache.
    options.set_optimize_filters_for_hits(True)
    # Level compaction, levels sized from the last one up: at most about 1.1 times the rows' bytes on disk.
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_target_file_size_base(FILE_BYTES)
    # The first level as big as what four flushes bring, as RocksDB advises.
    options.set_max_bytes_for_level_base(4 * FILE_BYTES)
    # Trained float32 does not compress, and reads would pay for trying.
    options.set_compression_type(DBCompressionType.none())


def _quiet(options: Options) -> None:
    options.set_stats_dump_period_sec(0)  # RocksDB's own statistics into its log every ten minutes: nobody reads it
    options.set_stats_persist_period_sec(0)  # and into memory
    # RocksDB's own log has no bound of size: a new file of it begins with the settings of every table so far (8 KB
    # each), so where these exceed the bound, from some 100 tables on, each line written would begin a new file.
    options.set_keep_log_file_num(2)
    options.set_max_manifest_file_size(MANIFEST_BYTES)  # the list of files; the default lets it grow to 1 GiB
