"""The parts that know no kinds: API port, queue, lease, report server, certificates, logs, settings, metrics."""
