"""What can be known to fail before the first step has cost anything."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import cast

import torch
import transformers

from limbeck.alignment.layers import match_layers
from limbeck.core.errors import MissingExtra, ModelError, RecipeError
from limbeck.core.recipe import Model, Recipe, dump_recipe
from limbeck.core.recipe.training import asking
from limbeck.data.difficulty import PASS_RATE
from limbeck.exporters import Exporter
from limbeck.exporters.onnx import Onnx
from limbeck.exporters.onnxruntime_genai import OnnxruntimeGenai
from limbeck.models.compact.convert import DECODERS, check_changes
from limbeck.models.load import load_config, new_config, new_model
from limbeck.models.shrink.heads import check_ahead as check_heads_ahead
from limbeck.objectives import DistributionTerm
from limbeck.objectives.base import BatchTerm
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._members import check_cascade
from limbeck.pipeline._prompts import given_prompts
from limbeck.pipeline._teaching import all_teachers, routes, trained_rows
from limbeck.pipeline._writers import currencies
from limbeck.pipeline.generate import adds
from limbeck.runtime.card import Card
from limbeck.tasks.causal_lm import CausalLM
from limbeck.tasks.text_classification import TextClassification
from limbeck.training.augment import refuse_blends
from limbeck.training.engine import micro_batch, processes


def check_recipe(recipe: Recipe) -> None:
    """What the recipe alone tells: before another recipe is run for its teacher.

    Raises:
        LimbeckError: the run would fail later.
    """
    teachers, training = all_teachers(recipe.teacher), recipe.training
    for stage in [*recipe.stages, *(each.finetune for each in teachers if each.finetune is not None)]:
        micro_batch(stage, processes().num_processes, f"stage {stage.name}")
        if stage.gradient_penalty and training.precision != "fp32":
            what = f"stage {stage.name}: a gradient penalty is a difference too small for {training.precision}"
            raise RecipeError(what, fix="training.precision=fp32")
    for stage in recipe.stages:
        refuse_blends(stage)
        if stage.gate is not None and not asking(stage):
            raise RecipeError(f"stage {stage.name} has a gate, but none of its terms asks a teacher")
        if stage.augment and any(each.remember for each in teachers):
            what = f"stage {stage.name}: a teacher cannot remember samples that are augmented"
            raise RecipeError(what, fix="teacher.remember=false")
    _check_tokenizers(recipe)
    _check_generate(recipe)
    check_evaluate(recipe)
    _check_shipping(recipe)
    check_cascade(recipe)
    if training.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("fp16 needs a GPU", fix="training.precision=bf16")
    if recipe.student.lora is not None and importlib.util.find_spec("peft") is None:
        raise MissingExtra("student.lora", "lora")


def check_evaluate(recipe: Recipe) -> None:
    """What language models alone can be asked: tasks of the harness, if there are any, and several answers to a row.

    Raises:
        RecipeError: the task is another.
        MissingExtra: the harness is not installed.
    """
    task, plan = recipe.task, recipe.evaluate
    if plan.samples is not None and (type(task) is not CausalLM or task.answer_pattern is None):
        what = "evaluate.samples is for language models whose answers are graded"
        raise RecipeError(what, got=task.type(), allowed="causal-lm with an answer_pattern")
    if not plan.harness:
        return
    if type(task) is not CausalLM:
        raise RecipeError("evaluate.harness is for language models", got=task.type(), allowed="causal-lm")
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingExtra("evaluate.harness", "harness")


def _check_shipping(recipe: Recipe) -> None:
    """What becomes of the student fits its task, and the tools for it are installed."""
    card, writes = Card(task=dump_recipe(recipe)["task"]), isinstance(recipe.task, CausalLM)
    if recipe.compress is not None:
        if writes and getattr(recipe.compress, "mode", None) == "static":
            what = "ranges are not known before what a language model writes"
            raise RecipeError(what, got="compress.mode: static", allowed="weight_only, dynamic")
        graph = OnnxruntimeGenai() if writes else Onnx()  # it is a graph that is compressed
        graph.check(card)
        card = replace(card, format="onnxruntime-genai" if writes else "onnx")
    if recipe.optimize is not None and not writes:
        Onnx().check(card)  # it is a graph that is optimised
    elif recipe.optimize is not None and recipe.compress is not None:
        what = "a compressed language model runs in an engine of its own, which `optimize` does not know"
        raise RecipeError(what, fix="leave out `compress`, or `optimize`")
    for each in recipe.export:
        cast(Exporter, each).check(card)


def _check_tokenizers(recipe: Recipe) -> None:
    """Where a term matches stretches of text, tokenizers differ, and no other term can go token by token."""
    terms = [term for stage in recipe.stages for term in stage.terms]
    if not any(getattr(term, "matches_text", False) for term in terms):
        return
    if by_token := [t.type() for t in terms if isinstance(t, DistributionTerm) and t.asks_teacher]:
        what = "tokenizers differ, so that these terms have nothing to compare position by position"
        raise RecipeError(what, got=", ".join(by_token), allowed="likelihood_matching, and terms that ask no teacher")
    if type(recipe.task) is not CausalLM or len(all_teachers(recipe.teacher)) != 1:
        raise RecipeError(
            "likelihoods of stretches are matched between language models, with one teacher",
            got=f"{recipe.task.type()}, {len(all_teachers(recipe.teacher))} teachers",
        )
    if recipe.student.model == "from-teacher":
        raise RecipeError("a student cut from its teacher has its tokenizer; take `kl` instead of likelihood_matching")


def _check_generate(recipe: Recipe) -> None:
    """What is written must be what the task can learn from."""
    for stage in recipe.generate:
        if len(found := currencies(recipe, stage)) > 1:
            what = f"generate ({stage.name}): writer and judge are paid in two currencies, which have no sum"
            raise RecipeError(what, got=", ".join(found), fix="give both prices in one `currency`")
        by_class = stage.synthesize is not None and stage.synthesize.by == "class"
        if isinstance(recipe.task, TextClassification):
            if not by_class:
                what = f"generate ({stage.name}): a classifier learns from texts with classes, not from answers"
                raise RecipeError(what, fix="synthesize: {by: class, count: 500}")
            if recipe.data.text_pair is not None:
                raise RecipeError(f"generate ({stage.name}): pairs of texts cannot be synthesized")
            if stage.writer is None and (recipe.teacher is None or recipe.teacher.endpoint is None):
                what = f"generate ({stage.name}): the teacher is a classifier, and can write nothing"
                raise RecipeError(what, fix="writer: A LANGUAGE MODEL, or writer: {endpoint: ...}")
        elif not isinstance(recipe.task, CausalLM):
            raise RecipeError(
                f"generate ({stage.name}): nothing can be written for this task",
                got=recipe.task.type(),
                allowed="causal-lm, text-classification",
            )
        elif by_class:
            what = f"generate ({stage.name}): prompts have no classes"
            raise RecipeError(what, fix="synthesize: {by: self_instruct, count: 500}")


def check_ahead(job: RunJob) -> None:
    """What models' configs and rows tell: layers that the student takes from its teacher, domains, and the like.

    Raises:
        LimbeckError: the run would fail later, after the teacher's training.
    """
    recipe = job.recipe
    check_pass_rate(job)
    if recipe.teacher is not None and recipe.teacher.combine == "domain":
        tested = job.splits.test if recipe.evaluate.split == "test" else job.splits.validation
        routes(recipe.teacher, [*trained_rows(job, recipe.stages), *tested])
    if recipe.training.gradient_checkpointing:
        trained: list[Model] = [each for each in all_teachers(recipe.teacher) if each.finetune is not None]
        for spec in [*trained, *([recipe.student] if recipe.student.model != "from-teacher" else [])]:
            _check_checkpointing(job, spec)
    if recipe.student.model != "from-teacher":
        load_config(recipe.student)
        _check_layers(job)
        return
    assert recipe.teacher is not None
    config, student = load_config(recipe.teacher), recipe.student
    depth = getattr(config, "num_hidden_layers", 0)
    wrong = [layer for layer in student.layers or [] if layer >= depth]
    if wrong and depth:
        raise ModelError("student.layers names layers that the teacher has not", got=wrong, allowed=f"0 to {depth - 1}")
    check_heads_ahead(config, student.num_attention_heads, student.hidden_size)
    if student.compact is not None:
        check_changes(student.compact)
        sizes = {name: getattr(config, name, None) for name in ("hidden_size", "num_attention_heads", "head_dim")}
        sizes |= {name: value for name, value in student.cuts.items() if name in sizes}
        fields = {**sizes, "is_decoder": config.model_type in DECODERS, **student.compact}
        new_config({"model_type": "compact", **fields}, {})


def check_pass_rate(job: RunJob) -> None:
    """A curriculum by the teacher's pass rate, which takes a verifier and several answers to a prompt.

    Raises:
        RecipeError: the generated rows will have no pass rate, or the same one.
    """
    stages, written = job.recipe.stages, job.recipe.generate
    named = [s.name for s in stages if s.data is None and PASS_RATE in getattr(s.curriculum, "measures", ())]
    if not named or not written:
        return
    goes_by = f"the curriculum of stage {named[0]} goes by `{PASS_RATE}`"
    for each in (each for each in written if each.verify is None):
        new = each.synthesize is not None  # nothing is known of these
        if new or any(PASS_RATE not in sample.meta for sample in given_prompts(job, each)):
            what = f"{goes_by}, but generate ({each.name}) has no `verify` that says which answers are right"
            raise RecipeError(what, fix="verify: ..., or another measure of difficulty")
    if any(adds(job, each) for each in written):
        if lacking := next((s.id for s in job.splits.train if PASS_RATE not in s.meta), None):
            what = f"{goes_by}, but the given rows beside the generated ones have none"
            raise RecipeError(what, got=f"row {lacking}", fix="generate.add=false, or another measure of difficulty")
    elif all(each.verify is not None and each.samples == 1 and not each.recorded for each in written):
        what = f"{goes_by}, but of one answer to each prompt the right ones alone are kept: all have 1"
        raise RecipeError(what, fix="generate.samples=4, or another measure of difficulty")


def _check_layers(job: RunJob) -> None:
    """Find the layers that terms compare, in models without weights. Code that comes with a model is not run here.

    Raises:
        LimbeckError: a layer is not there, or numbers of layers differ.
    """
    recipe = job.recipe
    terms = [term for stage in recipe.stages for term in stage.terms if isinstance(term, BatchTerm) and term.pairs()]
    first = next(iter(all_teachers(recipe.teacher)), None)
    if not terms or recipe.student.trust_remote_code or (first is not None and first.trust_remote_code):
        return
    with torch.device("meta"):
        student = new_model(load_config(recipe.student), job.task.auto_class)
        teacher = student if first is None else new_model(load_config(first), job.task.auto_class)
    for term in terms:
        match_layers(student, teacher, term.pairs())


def _check_checkpointing(job: RunJob, spec: Model) -> None:
    """Convolutional networks of transformers cannot be computed again in parts."""
    known = getattr(transformers, job.task.auto_class)._model_mapping
    config = load_config(spec)
    if type(config) in known and not known[type(config)].supports_gradient_checkpointing:
        what = f"{known[type(config)].__name__} has no gradient checkpointing"
        raise RecipeError(what, fix="training.gradient_checkpointing=false")
