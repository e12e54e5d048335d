"""What runs keep in the state area of the bucket: the ledger, the leases, the manifests, the transcripts."""
