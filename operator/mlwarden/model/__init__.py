"""The nouns: types that every layer shares, and nothing else.

No I/O, no clock, no behaviour beyond what makes an illegal value impossible to construct. Words are those of the design: request, workload,
policy, evidence, finding, verdict.
"""
