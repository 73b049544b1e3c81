"""The one word whose presence tells most: if that is enough, the labels are given away."""

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline, make_pipeline

from pipeline.probes.arms.base import Arm
from pipeline.probes.arms.texts import Texts
from pipeline.probes.models import BestColumns, Model


def one_word() -> Pipeline:
    # any run of characters without a space, also what is no word
    return make_pipeline(CountVectorizer(binary=True, token_pattern=r"\S+"), BestColumns(1))


def word_of(texts: Texts, prepare: Pipeline) -> dict[str, str]:
    return {"word": prepare[0].get_feature_names_out()[prepare[1].columns_[0]]}


ARMS = [Arm("one_word", lambda texts: {"none": texts.prompts.texts}, Model(None, one_word), describe=word_of)]
