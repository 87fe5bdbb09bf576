// Asks the models and shows what they say; what was asked stays in this page alone.
"use strict";

const form = document.getElementById("question");
const words = JSON.parse(form.dataset.words);
const labels = JSON.parse(form.dataset.labels);
const kind = form.dataset.kind;
const byId = (id) => document.getElementById(id);
const cards = new Map([...document.querySelectorAll("[data-model]")].map((card) => [card.dataset.model, card]));
const history = [];
let underWay = null; // the controller of the question that is being answered
let picture = null; // data URL of the picture that was chosen

function filled(text, places) {
  return text.replace(/\{(\w+)\}/g, (_, name) => places[name]);
}

function made(tag, fields = {}, ...inside) {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...inside);
  return element;
}

function tellWrong(text) {
  byId("wrong").textContent = text;
  byId("wrong").hidden = !text;
}

function titleOf(model) {
  return cards.get(model).querySelector("h3").firstChild.textContent.trim();
}

function given() {
  const fields = Object.fromEntries([...new FormData(form)].filter(([, value]) => typeof value === "string"));
  fields.row = fields.row || null;
  if (kind === "image" && picture !== null) fields.image = picture;
  if (kind === "prompt") fields.seed = Number(fields.temperature) > 0 ? Math.floor(Math.random() * 2 ** 31) : 0;
  return fields;
}

async function sentence(answer) {
  try {
    return (await answer.json()).error || words.broken;
  } catch {
    return words.broken;
  }
}

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function showTarget(target) {
  byId("target").hidden = target === null || target === undefined;
  byId("target").querySelector("b").textContent = target ?? "";
}

function show(event, entry) {
  const result = event.model === undefined ? null : cards.get(event.model).querySelector(".result");
  if (event.event === "part") {
    byId("state").textContent = filled(words.asking, { model: titleOf(event.model) });
    const text = result.querySelector(".text") || made("p", { className: "text", dir: "auto" });
    text.textContent = event.text;
    result.replaceChildren(text);
    entry.answers[event.model] = { prediction: null, text: event.text };
  } else if (event.event === "answered") {
    result.innerHTML = event.html; // made from the server's templates, which show values as text
    if (event.prediction === undefined) delete entry.answers[event.model];
    else entry.answers[event.model] = { prediction: event.prediction, text: event.text };
  } else if (event.event === "compared") {
    byId("verdict").innerHTML = event.html;
  } else if (event.event === "end") {
    entry.id = event.row;
    entry.target = event.target;
    entry.right = event.target ?? null;
    showTarget(event.target);
  }
}

async function ask() {
  if (underWay !== null) return;
  const fields = given();
  if (kind === "image" ? !fields.image && !fields.row : !(fields.text ?? fields.prompt).trim()) {
    return tellWrong(kind === "image" ? words.no_picture : words.empty);
  }
  const entry = { fields, answers: {}, id: null, target: null, right: null };
  underWay = new AbortController();
  tellWrong("");
  showTarget(null);
  byId("verdict").replaceChildren();
  for (const card of cards.values()) card.querySelector(".result").replaceChildren();
  byId("state").textContent = words.waiting;
  byId("stop").hidden = false;
  let state = "";
  try {
    const answer = await fetch("/ask", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
      signal: underWay.signal,
    });
    if (!answer.ok) return tellWrong(await sentence(answer));
    let last = null;
    for await (const event of lines(answer)) show((last = event), entry);
    if (last?.event !== "end") return tellWrong(words.broken);
  } catch (error) {
    if (error.name !== "AbortError") return tellWrong(words.broken);
    state = words.stopped;
  } finally {
    if (document.activeElement === byId("stop")) byId("ask").focus();
    byId("stop").hidden = true;
    byId("state").textContent = state;
    underWay = null;
  }
  if (Object.keys(entry.answers).length > 0) {
    history.push(entry);
    byId("history").querySelector("ol").append(listed(entry));
    byId("history").hidden = false;
  }
}

async function draw() {
  if (underWay !== null) return;
  tellWrong("");
  byId("state").textContent = words.row;
  try {
    const answer = await fetch("/row");
    if (!answer.ok) return tellWrong(await sentence(answer));
    fill(await answer.json());
    byId("ask").focus();
  } catch {
    tellWrong(words.broken);
  } finally {
    byId("state").textContent = "";
  }
}

function fill(fields) {
  form.elements.row.value = fields.row ?? "";
  for (const name of ["text", "text_pair", "prompt", "max_new_tokens", "temperature"]) {
    if (form.elements[name] && (fields[name] !== undefined || name === "text_pair")) form.elements[name].value = fields[name] ?? "";
  }
  if (fields.text_pair) byId("text_pair").closest("details").open = true;
  if (kind === "prompt") {
    const turns = (fields.before || []).map((turn) =>
      made("p", { className: "muted turn", dir: "auto" }, made("b", { textContent: turn.role }), ` ${turn.content}`),
    );
    byId("before").replaceChildren(...turns);
  }
  if (kind === "image") {
    byId("file").value = "";
    // A row's own pixels are asked, not their copy on this page.
    picture = fields.row === null || fields.row === undefined || fields.row === "" ? fields.image : null;
    byId("shown").src = fields.image;
    byId("shown").hidden = false;
  }
}

function choices(entry) {
  if (kind !== "prompt") return labels.map((label) => [label, label]);
  const own = entry.target === null ? [] : [[words.row_own, entry.target]];
  const said = Object.entries(entry.answers).map(([model, answer]) => [filled(words.by, { model: titleOf(model) }), answer.text]);
  return [...own, ...said].filter(([, text]) => text?.trim());
}

function listed(entry) {
  const { fields } = entry;
  const again = made("button", { type: "button", textContent: words.again });
  const shown = kind === "image" ? byId("shown").src : undefined;
  const before = kind === "prompt" ? [...byId("before").children].map((turn) => ({ role: turn.firstChild.textContent, content: turn.lastChild.textContent.slice(1) })) : undefined;
  entry.shown = shown;
  entry.before = before;
  again.addEventListener("click", () => {
    fill({ ...fields, ...(kind === "image" ? { image: shown } : {}), before });
    ask();
  });
  const right = made("select");
  right.append(made("option", { value: "", textContent: words.unknown }));
  choices(entry).forEach(([title, value]) => right.append(made("option", { value, textContent: title, selected: value === entry.right })));
  right.addEventListener("change", () => { entry.right = right.value || null; });
  const said = Object.entries(entry.answers).map(([model, answer]) => titleOf(model) + words.colon + ((answer.prediction ?? answer.text ?? "").trim().slice(0, 80) || words.nothing));
  const asked = kind === "image"
    ? made("img", { src: shown, alt: entry.id })
    : made("span", { dir: "auto", textContent: (fields.text ?? fields.prompt).slice(0, 200) });
  return made(
    "li", {},
    made("p", { className: "asked" }, asked),
    made("p", { className: "muted", textContent: said.join(" · ") }),
    made("p", { className: "row" }, made("label", {}, `${words.right_answer} `, right), again),
  );
}

function asRow(entry) {
  // Fields by the names that a recipe's data has; `row` is no `id`, for the same row may be asked twice.
  const { fields, answers, right } = entry;
  const row = { row: entry.target === null ? null : entry.id };
  if (kind === "prompt") {
    const turns = [...entry.before, { role: "user", content: fields.prompt }, { role: "assistant", content: right }];
    Object.assign(row, turns.length > 2 ? { messages: turns } : { prompt: fields.prompt, answer: right });
    Object.assign(row, { temperature: Number(fields.temperature), seed: fields.seed });
  } else {
    Object.assign(row, kind === "image" ? { image: entry.shown } : { text: fields.text });
    if (fields.text_pair) row.text_pair = fields.text_pair;
    row.label = right;
  }
  const said = Object.entries(answers).map(([model, answer]) => [model, kind === "prompt" ? answer : answer.prediction]);
  return JSON.stringify({ ...row, answers: Object.fromEntries(said) });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.submitter === byId("draw")) draw();
  else ask();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    ask();
  }
});
byId("stop").addEventListener("click", () => underWay?.abort());
byId("clear").addEventListener("click", () => {
  history.length = 0;
  byId("history").querySelector("ol").replaceChildren();
  byId("history").hidden = true;
});
byId("download").addEventListener("click", () => {
  const address = URL.createObjectURL(new Blob([history.map(asRow).join("\n") + "\n"], { type: "application/jsonl" }));
  made("a", { href: address, download: "questions.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
});
byId("file")?.addEventListener("change", () => {
  const file = byId("file").files[0];
  if (file === undefined) return;
  if (file.size > Number(form.dataset.bytes)) {
    byId("file").value = ""; // the picture of before is still the one that is asked
    return tellWrong(form.dataset.large);
  }
  tellWrong("");
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    picture = reader.result;
    form.elements.row.value = "";
    byId("shown").src = picture;
    byId("shown").hidden = false;
  });
  reader.readAsDataURL(file);
});
