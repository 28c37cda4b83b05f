"""An incomplete end of a cache is dropped, reported, and embedded again.

Attack: the newest shard of an unfinished cache is cut at every byte, in both formats; the writer that continues keeps the shards before it and none of its
rows. And (elsewhere) it then writes exactly the bytes that an undisturbed writer writes.
"""
import pytest
from test_cache import FINGERPRINT, SHARD, rows

from latent_summ.encode.cache_writer import CacheWriter

ALSO = ["test_cache.py::test_torn_at_every_byte_of_the_last_record"]


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_cut_at_every_byte(format, tmp_path, attacks):
    with CacheWriter(tmp_path, FINGERPRINT, format=format, shard_rows=SHARD) as w: w.add(rows()[:2 * SHARD])
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    last = f"rows-00001.{format}"
    for size in range(0, len(whole[last]), 1 if format == "jsonl" else 3):
        for name, data in whole.items(): (tmp_path / name).write_bytes(data)
        (tmp_path / last).write_bytes(whole[last][:size])
        with CacheWriter(tmp_path, FINGERPRINT, format=format, shard_rows=SHARD) as w: assert w.done == SHARD and not (tmp_path / last).exists()
    attacks(len(range(0, len(whole[last]), 1 if format == "jsonl" else 3)))
