"""A small controller runtime without product knowledge.

The names are those of client-go and controller-runtime:

- `reflector` lists and watches one kind, `informer` caches it (after `transform`) and notifies subscribers
- `workqueue` holds keys, `workers` reconcile them, `requeue` is the outcome of a reconcile that is not done
- `fair_share` limits the workers per export, `locks` keeps two workers away from one volume
- `election` holds the Lease, `leadership` is what the rest of the daemon sees of it
- `events` writes Kubernetes events, `supervision` restarts loops after unexpected errors
"""
