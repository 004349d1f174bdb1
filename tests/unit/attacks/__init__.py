"""
Attacks that no other test is about. The index of all of them is docs/security.md, in
which each attack is linked to the tests that try it.
"""
