"""The index of offsets is derived from the data: if it is missing, stale or wrong, it is rebuilt.

Attack: the index is removed, cut at every byte, taken from another shard, from an older version of the same one, filled with random numbers and with
numbers beyond the file; every row must be read as it was written.
"""
import numpy as np
from test_cache import ROWS, write

from latent_summ.encode.cache import Cache

ALSO = ["test_cache.py::test_a_flipped_byte_is_found_in_every_file"]


def test_every_wrong_index(tmp_path, draw, attacks):
    cache = write(tmp_path)
    want = [repr(cache[i]) for i in range(ROWS)]
    path = tmp_path / "offsets-00000.bin"
    good, g = path.read_bytes(), np.random.default_rng(draw.randrange(10**6))
    shuffled = np.frombuffer(good, "<u8").copy()
    shuffled[1:-1] = shuffled[1:-1][::-1]
    wrong = [b"", *(good[:n] for n in range(0, len(good), 5)), (tmp_path / "offsets-00001.bin").read_bytes()[::-1], good + good, shuffled.tobytes(),
             (np.frombuffer(good, "<u8") + 1).astype("<u8").tobytes(), *(g.integers(0, 2**63, 7).astype("<u8").tobytes() for _ in range(20)),
             *(np.sort(np.append(g.integers(0, 500, 5), [0, len((tmp_path / "rows-00000.jsonl").read_bytes())])).astype("<u8").tobytes() for _ in range(20))]
    for data in wrong:
        path.write_bytes(data)
        cache = Cache.open(tmp_path)
        assert [repr(cache[i]) for i in range(ROWS)] == want
    path.unlink()
    cache = Cache.open(tmp_path)
    assert [repr(cache[i]) for i in range(ROWS)] == want and path.read_bytes() == good
    attacks(len(wrong) + 1)
