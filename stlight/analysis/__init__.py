"""From records to tables and figures. Nothing here imports torch or trains."""
