"""The restartable batch job: plan, shards, engines, manifest."""
