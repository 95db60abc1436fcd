"""One dtype throughout: which dtypes a model may run in, and the audit that it stays in one.

MLX promotes silently: a float32 bias, a scale given as an array, or arithmetic on an int mask turns everything after it
into float32. The audit traces a forward pass, without computing it or reading a weight, and names the operations that
lead out of the dtype.
"""

from mlx_rerank.dtypes.audit import Report, assert_one_dtype, audit, report
from mlx_rerank.dtypes.causes import Operand, Violation
from mlx_rerank.dtypes.policy import FLOAT32_INSIDE, NAMES, default_dtype, dtype_name, parse_dtype

__all__ = [
    "FLOAT32_INSIDE",
    "NAMES",
    "Operand",
    "Report",
    "Violation",
    "assert_one_dtype",
    "audit",
    "default_dtype",
    "dtype_name",
    "parse_dtype",
    "report",
]
