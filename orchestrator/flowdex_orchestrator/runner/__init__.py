"""The local runner: `flowdex up`, `down`, `ps`, `logs`, `scale` and `restart`.

cli --> checks (flow/check.py) --> plan --> Supervisor --spawns--> executor, executor, ..., gateway
                                                |  ^--------- exit code, grpc.health.v1
                                                v
                                           state.json  <--reads-- ps, down, logs, up --detach

cli.py           up, down, ps, logs                  diagnosis.py    why a process ended, and the remedy
control.py       background start, stop from outside environment.py  variables of the children, threads
health.py        is this port SERVING?               logs.py         read, follow, rotate log files
plan.py          flow -> list of processes           ports.py        free loopback ports
process.py       one child process                   state.py        state.json, lock, process identity
supervisor.py    start, watch, restart, stop all     table.py        the live table and plain lines
scaling.py       replicas that come and go           autoscale.py    how many there should be
commands.py      what others may ask of the runner   scale_cli.py    scale, restart
replica.py       what it asks of a replica
"""
