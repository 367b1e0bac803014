#!/bin/bash
# train_on.sh HOST...: a training on each host, each with its own rank
ranks=()
for host in "$@"; do
    ssh "$host" "cd jobs && env POWER_AGENT_MARKS=$POWER_AGENT_MARKS RANK=${#ranks[@]} python train.py" &
    ranks+=($!)
done
status=0
for rank in "${ranks[@]}"; do wait "$rank" || status=$?; done
exit $status
