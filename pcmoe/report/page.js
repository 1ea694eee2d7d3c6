// pcmoe/report/page.js: draws the charts of a report from the JSON in the page. Without it the page
// shows the same numbers as tables.
(() => {
  'use strict';
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  // Okabe and Ito's colours, told apart without colour vision; the dark ones are lighter kin.
  const COLOURS = {
    light: ['#0072b2', '#c44e00', '#00805c', '#b0558a', '#8a6d00', '#3a9bd9', '#3b3b3b', '#a0201c', '#6a45b0', '#7a838b'],
    dark: ['#56b4e9', '#ff9455', '#2fd0a0', '#ee9ecb', '#e8c547', '#a5c8ff', '#e4e7ea', '#ff8a85', '#c3a6ff', '#949da5']
  };
  const INK = {light: ['#1b2026', '#d5dbe1'], dark: ['#d5dade', '#363e46']};
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [12, 4], [4, 2], [5, 2, 1, 2, 1, 2], [16, 3, 3, 3]];
  const charts = [];
  const swatches = [];  // [line of a legend, number of its series]
  let printing = false;

  const trim = (value) => Number(value.toPrecision(4)).toLocaleString('en', {maximumSignificantDigits: 4});
  function bytes(value) {
    for (const [size, name] of [[1e12, 'TB'], [1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB']]) {
      if (Math.abs(value) >= size) return trim(value / size) + ' ' + name;
    }
    return trim(value) + ' B';
  }
  const written = (unit) => unit === 'bytes' ? bytes : unit === 'percent' ? (v) => trim(v) + ' %' : trim;

  const mode = () => dark.matches && !printing ? 'dark' : 'light';
  const colourOf = (i) => COLOURS[mode()][i % COLOURS.light.length];
  // Shifted in every round of the colours, so that no two of 64 curves are alike.
  const dash = (i) => DASHES[(i + 3 * Math.floor(i / COLOURS.light.length)) % DASHES.length];

  function paint(chart) {
    const [ink, line] = INK[mode()];
    chart.data.datasets.forEach((set, i) => {
      const colour = colourOf(i);
      set.borderColor = colour;
      set.backgroundColor = colour;
    });
    const options = chart.options;
    options.color = ink;
    options.plugins.legend.labels.color = ink;
    for (const axis of [options.scales.x, options.scales.y]) {
      axis.grid.color = line;
      axis.ticks.color = ink;
      axis.title.color = ink;
    }
    chart.update();
  }

  function axis(title, more) {
    return Object.assign({grid: {}, ticks: {maxRotation: 0, autoSkipPadding: 12},
                          title: {display: Boolean(title), text: title}}, more);
  }

  function draw(canvas) {
    const spec = JSON.parse(document.getElementById(canvas.dataset.of).textContent);
    const curves = spec.kind === 'curves';
    const write = written(spec.unit);
    const value = (title) => axis(title, {beginAtZero: !curves, stacked: Boolean(spec.stacked)});
    const scales = curves ?
        {x: axis(spec.x_title, {type: 'linear'}), y: value(spec.y_title)} :
        {x: value(spec.y_title), y: axis('', {stacked: Boolean(spec.stacked)})};
    (curves ? scales.y : scales.x).ticks.callback = (v) => write(v);
    (curves ? scales.x : scales.y).ticks.autoSkip = curves;
    const sets = spec.series.map((one, i) => curves ? {
      label: one.name, data: one.points.map(([x, y]) => ({x, y})), borderWidth: 2, tension: 0,
      borderDash: dash(i), order: -i, pointRadius: one.points.length > 30 ? 0 : 2.5
    } : {label: one.name, data: one.bars, maxBarThickness: 22});
    charts.push(new Chart(canvas, {
      type: curves ? 'line' : 'bar',
      data: {labels: spec.categories, datasets: sets},
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, indexAxis: curves ? 'x' : 'y',
        interaction: {mode: curves ? 'nearest' : 'index', axis: curves ? 'x' : 'y', intersect: false},
        scales,
        plugins: {
          legend: {position: 'bottom', display: !curves && sets.length > 1, labels: {boxWidth: 14}},
          tooltip: {callbacks: {label: (at) => at.dataset.label + ': ' + write(curves ? at.parsed.y : at.parsed.x)}}
        }
      }
    }));
  }

  // One legend for charts side by side, with the dashes that Chart.js's own would not show.
  function legend(group) {
    const first = group.querySelector('canvas[data-of]');
    const spec = JSON.parse(document.getElementById(first.dataset.of).textContent);
    if (spec.kind !== 'curves' || spec.series.length < 2) return;
    const list = document.createElement('ul');
    list.className = 'legend';
    spec.series.forEach((one, i) => {
      const item = list.appendChild(document.createElement('li'));
      item.innerHTML = '<svg width="34" height="10" aria-hidden="true"><path d="M0 5h34" stroke-width="2.5"/></svg>';
      item.append(one.name);
      const path = item.querySelector('path');
      path.setAttribute('stroke-dasharray', dash(i).join(' '));
      swatches.push([path, i]);
    });
    group.before(list);
  }

  function repaint() {
    charts.forEach(paint);
    for (const [path, i] of swatches) path.setAttribute('stroke', colourOf(i));
  }
  root.classList.add('js');
  document.querySelectorAll('canvas[data-of]').forEach(draw);
  document.querySelectorAll('.charts').forEach(legend);
  document.querySelectorAll('.charts details[open]').forEach((numbers) => { numbers.open = false; });
  repaint();
  dark.addEventListener('change', repaint);
  // Paper is light, and as wide as it is.
  addEventListener('beforeprint', () => {
    printing = true;
    for (const chart of charts) {
      const box = chart.canvas.parentNode;
      chart.resize(box.closest('.many') ? 320 : 670, Math.min(box.clientHeight, 340));
    }
    repaint();
  });
  addEventListener('afterprint', () => {
    printing = false;
    charts.forEach((chart) => chart.resize());
    repaint();
  });
})();
