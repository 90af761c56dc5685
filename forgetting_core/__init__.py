"""The method: score response tokens by influence, partition them, fine-tune by forgetting.

Knows torch, transformers, datasets, accelerate and peft; nothing of Prefect, MLflow or S3. Every step is a
function from a config and local folders to a local folder. Importing this package imports no torch.
"""
