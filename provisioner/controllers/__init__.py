"""The product's control loops.

Each gathers facts, lets core decide, and acts through the ports. On every replica:

- `cache`: the cluster as the daemon knows it; `context`: dependencies shared by all controllers; `gauges`
- `export_health`: opens and probes exports, gates their use; `unused_exports`: forgets those that nothing names

Only on the leader, started by `leader`:

- `claims`: provisioning, with `namespaces`, `free_space` and `rollback` of unfinished attempts; `expansion` of volumes
- `volumes`: finalizers and reclaim, with `rebinding`, `neighbours` and `record_upkeep`
- `takeover`: records for volumes of a predecessor; `unlocated_volumes`: volumes on no known export
- `sweep`: the periodic tasks of each export: `instances`, `orphans` (by `orphan_facts`), `missing_data`,
  `archive_expiry` and `trash`; the last two ask `returned` before they destroy anything
"""
