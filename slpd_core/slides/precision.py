def choose_precision(precision: str, device: str) -> str:
    """placeholder until the merge"""
    return "bf16"
