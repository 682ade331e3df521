"""PostgreSQL: connections, migrations, and the statements that read and move clips."""
