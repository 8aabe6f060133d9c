"""What measures `showtell bulk`, and what calculates a fleet from it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.__main__ import main
from benchmarks.bulk import measure_leading, measure_planning, measure_rate
from benchmarks.fleet import Fleet, calculate

from showtell.bulk.places import open_store
from showtell.bulk.plan import Picture, cut_shards
from showtell.bulk.results import Results, commit_shard
from showtell.outputs import Record

FLEET = Fleet(
    images=1e6,
    machines=10,
    processors=2,
    shard_size=1000,
    rate=10,
    leading_seconds=0.01,
    request_seconds=0.04,
    planned_per_second=1e5,
    start_seconds=50,
    bytes_per_image=1e5,
    bytes_per_second=1e7,
    price_per_hour=3.6,
    price_per_read=1e-6,
    price_per_write=1e-5,
)


def test_a_fleet_takes_as_long_as_its_slowest_part() -> None:
    found = calculate(FLEET)
    assert found["bottleneck"] == "captioning"
    hours = found["hours_of"]
    assert isinstance(hours, dict)
    seconds = {name: 3600 * value for name, value in hours.items()}
    assert seconds == pytest.approx(
        {
            "captioning": 1e6 / (10 * 2 * 10),
            "reading": 1e6 * 1e5 / (10 * 1e7),
            "leading": 1000 * (0.01 + 0.04),
            "starting": 50 + 1e6 / 1e5,
        }
    )
    assert found["hours"] == pytest.approx(5060 / 3600)
    assert found["machines_until_leading_limits"] == pytest.approx(10 * 5000 / 50)
    # 10 machines for 5060 s at 0.001 a second; 1e6 reads, and for 1000 shards two writes and a read
    assert found["cost_of"] == pytest.approx({"machines": 50.6, "requests": 1 + 0.02 + 0.001})
    assert found["cost"] == pytest.approx(51.621)
    assert calculate(replace(FLEET, machines=2000))["bottleneck"] == "leading"
    assert calculate(replace(FLEET, bytes_per_second=1e6))["bottleneck"] == "reading"


def test_the_fleet_reads_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = tmp_path / "bulk.json"
    values = {"rate": 12.0, "leading_seconds": 0.002, "planned_per_second": 5e4, "bytes_per_image": 9e4}
    measured.write_text(f"{json.dumps({'fleet': values})}\n")
    assert main(["fleet", "--measured", str(measured), "--machines", "7"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"] == pytest.approx({**said["inputs"], **values, "machines": 7})
    with pytest.raises(SystemExit):
        main(["fleet", "--machines", "7"])
    assert "--rate is not known" in capsys.readouterr().err


def test_the_rate_is_that_behind_the_first_shards(tmp_path: Path) -> None:
    results = Results(open_store(str(tmp_path)))
    results.begin({}, cut_shards((Picture(f"{n}", f"{n}") for n in range(8 + 5 * 16)), 16), tuple)
    for shard, ended in zip(list(results.missing()), (100, 101, 109, 105, 113, 117)):
        records = [Record(image=one.key) for one in shard.pictures]
        results.add(commit_shard(results.store, shard.number, records, "jsonl").entry)
        os.utime(tmp_path / results.entries[shard.number].file, (ended, ended))
    results.finish()
    # Two workers have each done a shard after 101 s; four shards of 16 are done in the 16 s that follow.
    assert measure_rate(tmp_path, 2) == pytest.approx(4 * 16 / 16)


def test_planning_and_leading_are_measured(photographs: list[Path], tmp_path: Path) -> None:
    planned = measure_planning(tmp_path / "planning", photographs[0].parent, 6, 16)
    assert planned["planned_per_second"] > 0
    few = measure_leading(tmp_path / "few", 40, 1, size=16)["leading_seconds"]
    assert 1e-5 < few < 1  # a shard through Ray takes some tenths of a millisecond at the least
