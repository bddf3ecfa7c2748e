"""Public holidays, which are no working days: of a country or a part of it, by the package holidays."""

from typing import Any

import numpy as np

from onward.errors import OnwardError, nearest, needs


class Holidays:
    """The public holidays of `of`: a country by two letters, or a part of one after a hyphen, such as DE or US-CA.

    Raises OnwardError where the package is missing, and for what it has no holidays of.
    """

    def __init__(self, of: str):
        try:
            import holidays
        except ImportError as error:
            raise OnwardError(needs("--holidays", "holidays")) from error
        self.of = of
        country, hyphen, part = of.partition("-")
        known = holidays.list_supported_countries()
        if country not in known:
            near = nearest(country.upper(), known)
            hint = f". Is it {near}?" if near else ": two letters, such as DE, or with a part of it, such as US-CA"
            raise OnwardError(f"--holidays {of}: no holidays are known of a country {country!r}{hint}")
        if hyphen and part not in known[country]:
            parts = ", ".join(known[country]) or "none"
            raise OnwardError(f"--holidays {of}: {country} has no part {part!r}; its parts are: {parts}")
        self._days: Any = holidays.country_holidays(country, subdiv=part or None)
        self._known: dict[int, bool] = {}

    def on(self, days: np.ndarray) -> np.ndarray:
        """Whether each of these days, counted from 1970-01-01 on, is one."""
        told = {day: self._one(day) for day in np.unique(days).tolist()}
        return np.array([told[day] for day in days.tolist()], bool)

    def _one(self, day: int) -> bool:
        if day not in self._known:
            date = np.datetime64(day, "D").item()
            # Of days before the year 1 and after 9999 nobody knows.
            self._known[day] = not isinstance(date, int) and date in self._days
        return self._known[day]
