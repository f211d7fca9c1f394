"""Is this answer what was asked for? JSON out of a text, a schema or a list of labels to hold it against, and words for what is wrong.

Pure: texts in, values out. A form is made once per run (`form.SchemaForm`, `form.LabelForm`) and asked once per answer.
"""

from batchllm.validate.form import Form, LabelForm, SchemaForm
from batchllm.validate.verdict import Invalid, Parsed

__all__ = ["Form", "Invalid", "LabelForm", "Parsed", "SchemaForm"]
