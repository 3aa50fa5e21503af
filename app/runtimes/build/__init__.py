"""Build other forms of a model, compare them with eager fp32, choose one."""
