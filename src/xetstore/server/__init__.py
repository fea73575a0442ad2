"""HTTP in front of a cas. Starlette and uvicorn are imported in here and nowhere else."""
