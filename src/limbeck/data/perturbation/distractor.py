"""Sentences that have nothing to do with the question."""

# ruff: noqa: RUF001 - Chinese punctuation is meant
from __future__ import annotations

import re

import numpy as np

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.perturbation._base import Graded, Refused, asking, question_of
from limbeck.data.perturbation._parts import HAN

_CLAUSE = re.compile(r"(?:[^.!?。！？\n]|\.(?=\d)|(?:(?<=Mr)|(?<=Mrs)|(?<=Ms)|(?<=Dr)|(?<=St))\.)*[?？]")
_ENGLISH = (
    ("lighthouse", "A lighthouse on the coast was painted {n} years ago."),
    ("orchestra", "An orchestra in the next town has {n} violins."),
    ("telescope", "The telescope at the observatory weighs {n} tons."),
    ("glacier", "A glacier far to the north is {n} miles long."),
    ("submarine", "A submarine in the harbor can dive for {n} days."),
    ("castle", "The old castle on the hill has {n} windows."),
    ("volcano", "A volcano overseas has been silent for {n} centuries."),
    ("opera", "The opera house opened its doors {n} decades ago."),
    ("satellite", "A satellite circles the planet {n} times before Sunday."),
    ("cathedral", "The bell of the cathedral rings {n} times at noon."),
    ("desert", "It has not rained in the desert for {n} months."),
    ("aquarium", "The aquarium downtown keeps {n} sharks."),
)
_CHINESE = (
    ("灯塔", "海边的一座灯塔是{n}年前建成的。"),
    ("乐团", "邻市的交响乐团有{n}把小提琴。"),
    ("望远镜", "天文台的望远镜重{n}吨。"),
    ("冰川", "北方有一条长{n}公里的冰川。"),
    ("潜艇", "港口的潜艇可以在水下停留{n}天。"),
    ("城堡", "山上的古城堡有{n}扇窗户。"),
    ("火山", "远方的一座火山已经沉睡了{n}百年。"),
    ("歌剧院", "歌剧院在{n}年前落成。"),
    ("卫星", "一颗卫星每周绕地球{n}圈。"),
    ("钟楼", "钟楼的钟在中午敲{n}下。"),
    ("沙漠", "沙漠里已经{n}个月没有下雨了。"),
    ("水族馆", "市中心的水族馆养了{n}条鲨鱼。"),
)


@part
class Distractor(Graded):
    """Insert irrelevant sentences with numbers before what is asked, one for each degree of severity.

    They are in English, or in Chinese where the question has Chinese characters, and of things that the question
    does not speak of.

    Reference:
        Shi et al., Large Language Models Can Be Easily Distracted by Irrelevant Context, 2023, arXiv:2302.00093.
    """

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        question = question_of(sample)
        if question is None:
            return Refused("no_text")
        clauses = list(_CLAUSE.finditer(question))
        if not clauses:
            return Refused("no_question")
        is_chinese = HAN.search(question) is not None
        strange = [text for thing, text in (_CHINESE if is_chinese else _ENGLISH) if thing not in question.lower()]
        if len(strange) < self.severity:
            return Refused("nothing_irrelevant")
        chosen = draws.choice(len(strange), size=self.severity, replace=False)
        said = [strange[i].format(n=int(draws.integers(2, 100))) for i in chosen]
        place = clauses[-1].start()
        before, after = question[:place], question[place:].lstrip(" ")
        text = "".join(said) if is_chinese else " ".join(said) + " "
        gap = " " if before and not before[-1].isspace() and not is_chinese else ""
        return asking(sample, before + gap + text + after)
