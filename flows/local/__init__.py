"""Everything that an unattended workflow needs, as plain processes of this machine: `make up`.

PostgreSQL from the distribution, S3 (SeaweedFS) from its package, a Prefect server, one worker per
pool. For one machine, and for trying what compose and
Kubernetes run elsewhere: infra/README.md.
"""
