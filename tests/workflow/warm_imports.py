"""What the process that jobs are forked from has imported: libraries that start no threads."""

from slpd_core import runtime  # the one package of ours: before PyTorch, it limits spinning

with runtime.fast_imports():
    import cv2  # noqa: F401
    import h5py  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    import scipy.stats  # noqa: F401
    import skimage.measure  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import timm  # noqa: F401
    import torch._dynamo  # noqa: F401
