'use strict';
const table = document.getElementById('table'), body = table.tBodies[0];
const text = document.getElementById('text'), kind = document.getElementById('kind');

function filter() {
  const words = text.value.trim().toLowerCase();
  let shown = 0;
  for (const row of body.rows) {
    row.hidden = !row.textContent.toLowerCase().includes(words) ||
      !(' ' + row.dataset.kinds + ' ').includes(kind.value ? ' ' + kind.value + ' ' : ' ');
    shown += !row.hidden;
  }
  document.getElementById('count').textContent = shown + ' / ' + body.rows.length;
}

function sort(header) {
  const up = header.getAttribute('aria-sort') !== 'ascending', at = header.cellIndex;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const value = row => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const rows = [...body.rows].sort((a, b) =>
    value(a).localeCompare(value(b), undefined, {numeric: true}) * (up ? 1 : -1));
  body.append(...rows);
}

for (const header of table.tHead.rows[0].cells) {
  header.firstElementChild.addEventListener('click', () => sort(header));
}
text.addEventListener('input', filter);
kind.addEventListener('input', filter);
filter();
