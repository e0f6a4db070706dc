"""Reads an answer as mathematics, whole or not at all, and compares two that were read.

    signs       Unicode to its usual LaTeX, marks of layout off
    tokens      LaTeX or plain text to tokens
    tree        what an expression is
    expressions tokens to an expression
    units       words and units behind a number
    answers     tokens to an answer: a number, a list, a point, an interval, an equation, words
    evaluation  the value of an expression, exact or to many digits
    equality    whether two answers are the same
    agreement   whether two texts are: `agree` and `is_read`

No text is ever evaluated, and the cost is bounded by the length of the text and a budget of steps.
"""
