"""The core's tasks as Airflow knows them: connection, operators, trigger."""
