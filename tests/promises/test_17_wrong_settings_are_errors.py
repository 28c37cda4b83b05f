"""Wrong JSON types, NaN, unknown keys and typos are errors with a suggestion.

Attack: config files and command lines changed at random in bytes and in structure: each is accepted as a whole or rejected with one of our own errors,
never with a traceback; and (elsewhere) every kind of wrong file and value, one by one.
"""
import pytest
from fuzz import attack

ALSO = [f"test_config.py::{n}" for n in ("test_any_json_object_is_taken_whole_or_refused_whole", "test_any_bytes_are_read_or_refused", "test_a_wrong_file_is_one_clear_error",
                                         "test_every_way_in_has_the_same_rule", "test_a_misspelt_name_is_refused_everywhere_with_the_nearest",
                                         "test_an_impossible_combination_names_both_values", "test_a_file_that_cannot_be_read_is_a_clear_error")]


@pytest.mark.parametrize(("target", "inputs"), [("ConfigFile", 400), ("CommandLine", 25)])
def test_at_random(target, inputs, attacks):
    found = attack(target, inputs, 17)
    assert not found["broken"], found["broken"]
    attacks(sum(found["counts"].values()))
