#!/usr/bin/env bash
# Splits the flights of a month into one file a day, as they would arrive one after the other.
#
#   data/split_days.sh [MONTH [FIRST_DAY [LAST_DAY]]]     January, all days
#
# Run it from the top of the repository. The files go to data/out/days, which data/days.toml reads.
set -euo pipefail
month=${1:-1}
first=${2:-1}
last=${3:-$(date -d "2013-$month-01 +1 month -1 day" +%d)}
darner=${DARNER:-cargo run --quiet --release --}
mkdir -p data/out/days
for ((day = first; day <= 10#$last; day++)); do
  file=$(printf 'data/out/days/2013-%02d-%02d.parquet' "$month" "$day")
  $darner --quiet sql "SELECT * FROM 'data/flights.parquet' WHERE month = $month AND day = $day" -o "$file"
  echo "$file"
done
