"""What a person says of a field in a sweep: one value, several, or a range."""

from collections.abc import Sequence

from onward.errors import OnwardError
from onward.lab.fields import Field, Value, split
from onward.lab.sweeps.plan import LISTED, SHARED, Range


def read_axis(field: Field, words: Sequence[str]) -> Value | list[Value] | Range:
    """One value of a field, a list of values, or a range; OnwardError where the words are none of them.

    Commas and spaces separate values: `--units 8,16`. Values of several words are separated by commas alone:
    `--isi '24 36,10 20'`. A range has its ends on both sides of two dots: `--step-sizes 1e-5..1e-2`.
    """
    together = field.count != 1 and field.name not in LISTED
    values = [value.strip() for value in " ".join(words).split(",")] if together else split(words)
    if not all(values):
        raise OnwardError(f"{field.option} has {'an empty value' if any(values) else 'no values'}: name at least one")

    def read(value: str) -> Value:
        several = field.read(value.split() if together else [value])
        return several[0] if field.name in LISTED and isinstance(several, tuple) else several

    if any(".." in value for value in values):
        if len(values) > 1 or field.name in SHARED:
            raise OnwardError(f"{field.option} takes one range (1e-5..1e-2) or values, not both")
        low, high = map(read, values[0].split("..", 1))
        if not isinstance(low, int | float) or not isinstance(high, int | float) or field.switch:
            raise OnwardError(f"{field.option} {values[0]}: a range is between two numbers")
        return Range(low, high, isinstance(low, int) and isinstance(high, int))
    if len(values) == 1 and field.name not in LISTED:
        return read(values[0])
    if field.name in SHARED:
        raise OnwardError(f"{field.option} takes one number in a sweep: every configuration gets the same seeds")
    # As JSON has them, since a sweep is kept as JSON.
    return [list(value) if isinstance(value, tuple) else value for value in map(read, values)]  # type: ignore[misc]
