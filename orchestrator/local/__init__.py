"""The parts that `orchestrator dev` brings along: a database, a bucket and a stand-in for Cloudflare Stream.

Nothing here runs in production; the programs it starts come with the extra `local`.
"""
