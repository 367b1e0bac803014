#!/bin/bash
# torchrun_on.sh HOST...: one training over all hosts, a torchrun on each
ranks=()
for host in "$@"; do
    torchrun="torchrun --nnodes $# --node-rank ${#ranks[@]} --nproc-per-node 1 --master-addr $1 --master-port 29500"
    ssh "$host" "cd jobs && env POWER_AGENT_MARKS=$POWER_AGENT_MARKS OMP_NUM_THREADS=1 $torchrun torchrun_ddp.py" &
    ranks+=($!)
done
status=0
for rank in "${ranks[@]}"; do wait "$rank" || status=$?; done
exit $status
