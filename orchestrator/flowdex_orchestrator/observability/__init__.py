"""What a process lets be seen of itself: metrics for Prometheus, traces, logs, and whether it still works.

durations   counts and histograms, kept as plain numbers
families    those as what Prometheus reads, with what every process says of itself
endpoint    the HTTP port at which it reads them
tracing     spans of requests, by OpenTelemetry
logs        lines for people or JSON, with the request they are about
"""
