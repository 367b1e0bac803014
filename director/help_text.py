"""Examples and exit statuses that `power-director --help` and its commands end with."""

COMMANDS = """\
examples:
  power-director run -- python train.py        measure a command
  power-director run --help                    all that can be chosen
  power-director report power-sessions/DIR     show a session again

What can be measured here is told by: power-agent devices
"""

RUN = """\
examples:
  power-director run -- python train.py
  power-director run --idle 30 --repeat 5 --label resnet -- python train.py --epochs 1
  power-director run --rate nvml=20 --rate rapl=100 --mllog results.log -- ./run_and_time.sh
  power-director run --set estimate.peak_watts=280 --explain -- python train.py
  power-director run --loadgen build/logs --json result.json -- python main.py --scenario Offline
  power-director run --phase-pattern 'epoch=^Epoch (?P<index>\\d+)' -- python train.py
  power-director run --replay spl.txt --loadgen mlperf_log_detail.txt

--rate, --set and --phase-pattern may be given more than once.
The job keeps its terminal, its standard streams, its signals and its exit status.
The report goes to standard error.
"""

REPORT = """\
examples:
  power-director report --explain power-sessions/20260102T030405Z-train
  power-director report --quiet --json - series | jq .metrics

Exit status: 0; 1, it cannot be read or written; 2, it is no session, a damaged
one, or one that a newer version wrote.
"""

RECOVER = """\
example:
  power-director recover power-sessions/20260102T030405Z-train

What is missing it tells here and in the manifest. Doing it twice changes nothing.
Exit status: 0; 1, it cannot be read or written; 2, there is nothing to recover,
or not yet: the job has not ended.
"""
