"""One thin Prefect task per step of the DAG."""
