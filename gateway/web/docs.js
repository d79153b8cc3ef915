// The API's reference: the OpenAPI document, as a list of operations that open.

const VERBS = ['get', 'post', 'put', 'patch', 'delete', 'head'];
const DEEPEST = 4;
const description = await (await fetch('/openapi.json')).json();

function element(name, content = [], attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...[content].flat().filter((part) => part !== null));
  return made;
}

function resolved(schema) {
  const name = schema?.$ref?.split('/').pop();
  return name === undefined ? schema ?? {} : { name, ...description.components.schemas[name] };
}

function kindOf(schema) {
  const found = resolved(schema);
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (found.const !== undefined) return JSON.stringify(found.const);
  const choices = found.anyOf ?? found.oneOf;
  if (choices) return choices.map(kindOf).join(' | ');
  if (found.type === 'array') return `list of ${kindOf(found.items)}`;
  return [found.type ?? found.name ?? 'anything'].flat().join(' | ');
}

function inner(schema) {
  const found = resolved(schema);
  if (found.properties) return found;
  if (found.type === 'array') return inner(found.items);
  for (const choice of found.anyOf ?? found.oneOf ?? []) {
    const deeper = inner(choice);
    if (deeper) return deeper;
  }
  return null;
}

function fields(schema, depth = 0) {
  const found = inner(schema);
  if (!found || depth >= DEEPEST) return null;
  const required = new Set(found.required ?? []);
  const list = element('dl');
  for (const [name, field] of Object.entries(found.properties)) {
    const told = field.description ?? resolved(field).description;
    list.append(
      element('dt', [name, required.has(name) ? ' (required)' : '', ' ', element('span', kindOf(field), { class: 'told' })]),
      element('dd', [told ? element('span', told) : null, fields(field, depth + 1)]),
    );
  }
  return list;
}

function example(path, verb, operation) {
  const lines = [`curl ${verb === 'get' ? '' : `-X ${verb.toUpperCase()} `}'${location.origin}${path}'`];
  if (operation.security) lines.push("  -H 'X-API-Key: YOUR_API_KEY'");
  const body = inner(operation.requestBody?.content?.['application/json']?.schema);
  if (body) {
    const shown = Object.fromEntries((body.required ?? []).map((name) => [name, sample(body.properties[name])]));
    lines.push("  -H 'Content-Type: application/json'", `  -d '${JSON.stringify(shown)}'`);
  }
  return element('pre', lines.join(' \\\n'));
}

function sample(schema, depth = 0) {
  const found = resolved(schema);
  if (found.enum) return found.enum[0];
  if (found.type === 'array') return depth < DEEPEST ? [sample(found.items, depth + 1)] : [];
  if (found.properties && depth < DEEPEST) {
    const names = found.required ?? [];
    return Object.fromEntries(names.map((name) => [name, sample(found.properties[name], depth + 1)]));
  }
  if (found.anyOf) return sample(found.anyOf[0], depth + 1);
  return { string: '…', integer: 1, number: 1, boolean: false, object: {} }[[found.type].flat()[0]] ?? null;
}

function part(title, content) {
  return content ? element('section', [element('h3', title), content]) : null;
}

function opened(path, verb, operation) {
  const parameters = operation.parameters?.length ? element('dl') : null;
  for (const given of operation.parameters ?? []) {
    const told = given.description || given.schema?.description || '';
    parameters.append(element('dt', [given.name, ` (${given.in}) `, element('span', kindOf(given.schema), { class: 'told' })]));
    parameters.append(element('dd', told));
  }
  const answer = operation.responses['2XX']?.content ?? {};
  const kinds = Object.keys(answer);
  return element('div', [
    element('p', operation.description),
    example(path, verb, operation),
    part('Parameters', parameters),
    part('Body', fields(operation.requestBody?.content?.['application/json']?.schema)),
    part(`Answer: ${kinds.join(', ')}`, fields(answer['application/json']?.schema) ?? element('p', '')),
    part('Failure', fields(operation.responses['4XX']?.content?.['application/json']?.schema)),
  ]);
}

const shown = [];
for (const tag of description.tags) {
  const group = element('section', [element('h2', tag.name), element('p', tag.description, { class: 'told' })]);
  for (const [path, item] of Object.entries(description.paths)) {
    for (const verb of VERBS.filter((each) => item[each]?.tags.includes(tag.name))) {
      const operation = item[verb];
      const heading = element('summary', [
        element('span', verb.toUpperCase(), { class: 'verb' }),
        element('span', path, { class: 'path' }),
        element('span', operation.summary, { class: 'told' }),
      ]);
      const details = element('details', heading);
      details.addEventListener('toggle', () => {
        if (details.open && details.children.length === 1) details.append(opened(path, verb, operation));
      });
      group.append(details);
      shown.push({ details, group, words: `${verb} ${path} ${operation.description}`.toLowerCase() });
    }
  }
  if (group.querySelector('details')) document.getElementById('operations').append(group);
}
document.getElementById('status').textContent = `${shown.length} operations, version ${description.info.version}`;

document.getElementById('find').addEventListener('input', (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const { details, words } of shown) details.hidden = !words.includes(wanted);
  for (const group of new Set(shown.map((each) => each.group))) {
    group.hidden = !group.querySelector('details:not([hidden])');
  }
});
