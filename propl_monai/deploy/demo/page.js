// What the page does with the server's answers. `Picture` draws; this file opens, asks, measures and saves.
import { Picture, bytes, pack, rampColour, unpack } from '/picture.js';

const $ = (id) => document.getElementById(id);
const FORMATS = {
  'png': 'PNG', 'png-all': 'PNG of all frames (zip)', 'nifti': 'NIfTI', 'nrrd': 'NRRD for 3D Slicer', 'dicom-seg': 'DICOM SEG',
  'coco': 'COCO', 'yolo': 'YOLO', 'cvat': 'CVAT',
};
const ROWS = {
  area: 'area', longest_axis: 'longest axis', perpendicular_axis: 'across it', perimeter: 'perimeter',
  head_circumference: 'head circumference', biparietal_diameter: 'biparietal diameter', occipitofrontal_diameter: 'occipitofrontal diameter',
};
const ALIVE_EVERY = 60000; // milliseconds

let about, study = null, frame = 1;
let codes = []; // of the targets on this picture, the active one last
const kept = new Map(); // "code/frame" -> layer, with the strokes that can be undone
const measured = new Map(); // "code/frame" -> measurements
const picture = new Picture($('picture'), $('overlay'), $('ring'), edited);

// --- server

class Refused extends Error {}

async function ask(path, body, options = {}) {
  const json = body !== undefined && !(body instanceof Blob || body instanceof Uint8Array);
  let answer;
  try {
    answer = await fetch(path, { method: body === undefined ? 'GET' : 'POST', body: json ? JSON.stringify(body) : body, ...options });
  } catch {
    throw new Refused('the server: does not answer; see whether propl demo still runs');
  }
  if (answer.ok) return answer;
  const { where, fact, cure } = await answer.json().catch(() => ({ where: 'the server', fact: `answered ${answer.status}`, cure: 'try again' }));
  throw new Refused(`${where}: ${fact}; ${cure}`);
}
const call = (verb, body) => ask(`/studies/${study.study}/${verb}`, body);

// One thing after the other; `text` is said meanwhile, errors are shown.
let queue = Promise.resolve();
function doing(text, work) {
  queue = queue.then(async () => {
    $('error').hidden = true;
    if (text) $('status').textContent = text;
    try {
      await work();
    } catch (error) {
      $('status').textContent = '';
      $('error').textContent = error instanceof Refused ? error.message : `this page: ${error.message}; load it again`;
      $('error').hidden = false;
      if (!(error instanceof Refused)) console.error(error);
    }
  });
  return queue;
}

// --- files

function open(file) {
  if (!file) return;
  doing(`Opening ${file.name} …`, async () => {
    if (file.size > about.most_upload) throw new Refused(`${file.name}: has more than ${about.most_upload / 1e6} MB; use propl predict for large files`);
    const next = await (await ask('/studies', file, { headers: { 'x-file-name': encodeURIComponent(file.name) } })).json();
    close();
    kept.clear();
    measured.clear();
    [study, frame, codes] = [next, 1, []];
    $('drop').classList.remove('empty');
    $('choose').textContent = 'Another file';
    $('hint').textContent = `${study.name}: ${study.width} × ${study.height}` + (study.frames > 1 ? `, ${study.frames} frames` : '');
    $('stage').hidden = false;
    $('cine').hidden = study.frames === 1;
    $('frame').max = study.frames;
    $('spacing').value = '';
    $('spacing').placeholder = study.spacing_mm ? study.spacing_mm.map((mm) => +mm.toPrecision(4)).join(' × ') : 'such as 0.1';
    $('format').replaceChildren(...study.formats.map((form) => new Option(form === 'png' && study.frames > 1 ? 'PNG of this frame' : FORMATS[form] ?? form, form)));
    const [row, column] = study.spacing_mm ?? [1, 1];
    picture.layers = [];
    picture.size(study.width, study.height, row / column);
    $('targets').disabled = false;
    await show();
    $('status').textContent = 'Choose a target.';
  });
}

// The server forgets the file.
function close() {
  if (study) navigator.sendBeacon(`/studies/${study.study}/close`);
  study = null;
}
addEventListener('pagehide', close);
addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
setInterval(() => study && fetch(`/studies/${study.study}/alive`, { method: 'POST' }).catch(() => {}), ALIVE_EVERY);

// --- targets and frames

// Show the frame with the masks of all targets asked for.
async function show() {
  const shown = frame;
  const blob = await (await ask(`/studies/${study.study}/frames/${shown}`)).blob();
  for (const code of codes) await segment(code, shown);
  picture.picture(await createImageBitmap(blob));
  refresh();
}

async function segment(text, number) {
  const uncertainty = $('uncertainty').checked;
  const known = kept.get(`${text}/${number}`);
  if (known && (known.deviation || !uncertainty)) return text;
  const answer = await (await call('segment', { text, number, uncertainty, spacing: $('spacing').value })).json();
  const key = `${answer.code}/${number}`, length = study.width * study.height;
  if (!kept.has(key)) kept.set(key, { code: answer.code, colour: colourOf(answer.code), mask: unpack(answer.mask, length), deviation: null, doubt: answer.doubt, undo: [] });
  if (answer.deviation) kept.get(key).deviation = bytes(answer.deviation);
  measured.set(key, answer.measured);
  return answer.code;
}

function target(text) {
  doing(`Segmenting ${text} …`, async () => {
    const code = await segment(text, frame);
    codes = [...codes.filter((other) => other !== code), code];
    await show();
  });
}

function go(number) {
  number = Math.min(study?.frames ?? 1, Math.max(1, number));
  if (!study || number === frame) return;
  frame = number;
  // Sliding may ask for many frames; only the last one is shown.
  doing('', () => (number === frame ? show() : null));
}

async function allFrames() {
  for (let first = 1; first !== null;) {
    first = (await (await call('segment_on', { codes, first })).json()).next;
    $('status').textContent = first === null ? 'All frames are segmented.' : `Segmenting frame ${first} of ${study.frames} …`;
  }
}

// Bring all controls in line with the state.
function refresh() {
  const here = codes.map((code) => `${code}/${frame}`);
  picture.layers = here.map((key) => kept.get(key));
  picture.draw();
  const code = codes.at(-1), found = measured.get(here.at(-1)), doubt = picture.layers.at(-1)?.doubt;
  for (const chip of $('chips').children) {
    chip.setAttribute('aria-pressed', chip.value === code);
    chip.classList.toggle('there', codes.includes(chip.value));
  }
  for (const id of ['tools', 'numbers', 'saving']) $(id).disabled = !code;
  $('frame').value = frame;
  $('frame-text').textContent = `${frame} of ${study.frames}`;
  $('all').disabled = !code;
  $('undo').disabled = !picture.layers.at(-1)?.undo.length;
  $('scale').hidden = !picture.layers.at(-1)?.deviation || !picture.show.uncertainty;
  $('most').textContent = +(about.largest_deviation * picture.fullScale()).toPrecision(2);
  $('overlay').classList.toggle('brush', picture.tool !== 'look');
  $('doubt').hidden = !doubt;
  $('doubt').textContent = doubt?.text ?? '';
  $('doubt').classList.toggle('warns', Boolean(doubt?.foreign || doubt?.absent));
  table(here.map((key) => measured.get(key)));
  if (found) {
    $('source').textContent = found.source;
    $('status').textContent = said(found);
    $('overlay').setAttribute('aria-label', `Picture with mask. ${said(found)}`);
  }
}

// Grey would not show on a grey picture.
function colourOf(code) {
  const { colour } = about.tasks.find((task) => task.code === code);
  return new Set(colour).size === 1 ? [255, 255, 255] : colour;
}
const nameOf = (code) => about.tasks.find((task) => task.code === code).name;
const number = (value) => (value === null ? '–' : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const unitOf = (row, found) => (found.unit === 'mm' ? 'mm' : 'px') + (row === 'area' ? '²' : '');

function said(found) {
  if (!found.parts) return `${nameOf(found.code)}: nothing found.`;
  const notes = [];
  if (found.parts > 1) notes.push(`${found.parts} parts, the largest is measured`);
  if (found.touches_border) notes.push('touches the border');
  if (found.edited) notes.push('corrected by hand');
  return `${nameOf(found.code)}: ${number(found.area)} ${unitOf('area', found)}${notes.map((note) => `, ${note}`).join('')}.`;
}

function table(all) {
  const cell = (kind, text, scope) => Object.assign(document.createElement(kind), { textContent: text, ...(scope && { scope }) });
  const made = document.createElement('table'), columns = [...all].reverse();
  made.createTHead().insertRow().append(cell('th', '', 'col'), ...columns.map((found) => cell('th', nameOf(found.code), 'col')));
  const body = made.createTBody();
  for (const [row, text] of Object.entries(ROWS)) {
    if (columns.every((found) => found[row] === null)) continue;
    const values = columns.map((found) => cell('td', number(found[row])));
    body.insertRow().append(cell('th', `${text}, ${unitOf(row, columns[0])}`, 'row'), ...values);
  }
  $('table').replaceChildren(...(columns.length ? [made] : []));
}

// --- corrections, pixel size, saving

function edited() {
  const code = codes.at(-1), number = frame, layer = kept.get(`${code}/${number}`);
  const query = new URLSearchParams({ spacing: $('spacing').value });
  doing('', async () => {
    const path = `/studies/${study.study}/masks/${code}/${number}?${query}`;
    measured.set(`${code}/${number}`, await (await ask(path, pack(layer.mask), { method: 'PUT' })).json());
    refresh();
  });
}

function measureAgain() {
  doing('', async () => {
    for (const key of measured.keys()) if (!key.endsWith(`/${frame}`)) kept.delete(key); // measured anew when shown
    const rows = await (await call('measure', { codes, number: frame, spacing: $('spacing').value })).json();
    for (const row of rows) measured.set(`${row.code}/${frame}`, row);
    refresh();
  });
}

function save(form) {
  doing('Saving …', async () => {
    if (form !== 'png' && study.frames > 1) await allFrames();
    const answer = await call('save', { codes, form, number: frame, spacing: $('spacing').value });
    const name = decodeURIComponent(answer.headers.get('content-disposition').split("''")[1]);
    const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(await answer.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    refresh();
    $('status').textContent = `Saved ${name}.`;
  });
}

// --- events

$('file').addEventListener('change', (event) => { open(event.target.files[0]); event.target.value = ''; });
for (const [name, over] of [['dragover', true], ['dragleave', false], ['drop', false]]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $('drop').classList.toggle('over', over);
    if (name === 'drop') open(event.dataTransfer.files[0]);
  });
}
$('ask').addEventListener('submit', (event) => { event.preventDefault(); if (study) target($('text').value); });
$('frame').addEventListener('input', () => go(+$('frame').value));
$('before').addEventListener('click', () => go(frame - 1));
$('after').addEventListener('click', () => go(frame + 1));
$('all').addEventListener('click', () => doing('Segmenting all frames …', allFrames));
$('overlay').addEventListener('wheel', (event) => {
  if (study?.frames > 1 && !event.ctrlKey) { event.preventDefault(); go(frame + Math.sign(event.deltaY)); }
}, { passive: false });
for (const input of document.getElementsByName('tool')) {
  input.addEventListener('change', () => { picture.tool = input.value; $('ring').hidden = true; refresh(); });
}
$('size').addEventListener('input', () => { picture.radius = $('size').value / 2; });
$('undo').addEventListener('click', () => picture.undo());
for (const id of ['mask', 'outline']) $(id).addEventListener('change', () => { picture.show[id] = $(id).checked; picture.draw(); });
$('uncertainty').addEventListener('change', () => doing('Asking again …', async () => {
  picture.show.uncertainty = $('uncertainty').checked;
  await show();
}));
$('spacing').addEventListener('change', measureAgain);
$('save').addEventListener('click', () => save($('format').value));
$('csv').addEventListener('click', () => save('csv'));
addEventListener('keydown', (event) => {
  if (event.target.matches?.('input[type="text"]')) return;
  if ((event.ctrlKey || event.metaKey) && event.key === 'z') { event.preventDefault(); picture.undo(); }
  if (event.key === ',' || event.key === '.') go(frame + (event.key === '.' ? 1 : -1));
  if (event.key === '[' || event.key === ']') {
    $('size').value = +$('size').value + (event.key === ']' ? 4 : -4);
    picture.radius = $('size').value / 2;
  }
});

doing('', async () => {
  about = await (await ask('/about')).json();
  $('drop').classList.add('empty');
  const stops = [0, 0.25, 0.5, 0.75, 1].map((part) => `rgb(${rampColour(part).join()})`);
  $('ramp').style.background = `linear-gradient(to right, ${stops.join()})`;
  $('chips').replaceChildren(...about.tasks.map((task) => {
    const chip = Object.assign(document.createElement('button'), { type: 'button', value: task.code, textContent: task.name });
    chip.style.setProperty('--colour', `rgb(${colourOf(task.code).join()})`);
    chip.setAttribute('aria-pressed', false);
    chip.addEventListener('click', () => target(task.code));
    return chip;
  }));
});
