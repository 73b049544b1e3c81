"""The arms of the comparison, a file each; of_text, of_dense and of_sae list those that a stage fits.

A new arm is a file here and its ARMS in one of these lists. A stage imports its own list alone, so that a change of an
arm runs the stage that fits it again, and no other.
"""
