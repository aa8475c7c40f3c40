"""The untrusted half of a session's pod: a supervisor without dependencies, and the interpreters that it starts.

Everything here runs under the uid of the model's code, so the agent (`pinnace.tools.sandbox`) believes it no more than
any stranger. Nothing here imports outside the standard library: less to start, less to attack.
"""
