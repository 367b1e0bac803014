"""Sessions written in the forms that others read: MLPerf folders, Parquet, CSV, a description of the system."""
