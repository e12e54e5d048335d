"""The pages in Airflow's UI: a day's calls, one call, a pipeline over time."""
