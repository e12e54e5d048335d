"""The Dags of callphases: one for each pipeline file, see callphases.airflow.dag."""

from callphases.airflow.dag import call_phases_dags

globals().update(call_phases_dags(__file__))
