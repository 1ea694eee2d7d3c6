// pcmoe/report/page.js: draws the charts of a report from the JSON in the page. Without it the page
// shows the same numbers as tables.
(() => {
  'use strict';
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  // Okabe and Ito's colours, told apart without colour vision; the dark ones are lighter kin.
  const COLOURS = {
    light: ['#0072b2', '#c44e00', '#00805c', '#b0558a', '#8a6d00', '#3a9bd9', '#3b3b3b', '#a0201c'],
    dark: ['#56b4e9', '#ff9455', '#2fd0a0', '#ee9ecb', '#e8c547', '#a5c8ff', '#d0d4d8', '#ff8a85']
  };
  const INK = {light: ['#1b2026', '#d5dbe1'], dark: ['#d5dade', '#363e46']};
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [12, 4], [4, 2], [1, 2], [6, 2, 2, 2]];
  const charts = [];
  let printing = false;

  const trim = (value) => Number(value.toPrecision(4)).toLocaleString('en', {maximumSignificantDigits: 4});
  function bytes(value) {
    for (const [size, name] of [[1e12, 'TB'], [1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB']]) {
      if (Math.abs(value) >= size) return trim(value / size) + ' ' + name;
    }
    return trim(value) + ' B';
  }
  const written = (unit) => unit === 'bytes' ? bytes : unit === 'percent' ? (v) => trim(v) + ' %' : trim;

  function paint(chart) {
    const mode = dark.matches && !printing ? 'dark' : 'light';
    const [ink, line] = INK[mode];
    chart.data.datasets.forEach((set, i) => {
      const colour = COLOURS[mode][i % COLOURS[mode].length];
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
    chart.update('none');
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
      borderDash: DASHES[i % DASHES.length], pointRadius: one.points.length > 30 ? 0 : 2.5
    } : {label: one.name, data: one.bars, maxBarThickness: 22});
    charts.push(new Chart(canvas, {
      type: curves ? 'line' : 'bar',
      data: {labels: spec.categories, datasets: sets},
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, indexAxis: curves ? 'x' : 'y',
        interaction: {mode: curves ? 'nearest' : 'index', axis: curves ? 'x' : 'y', intersect: false},
        scales,
        plugins: {
          legend: {position: 'bottom', display: sets.length > 1,
                   labels: {usePointStyle: curves, pointStyle: 'line', boxWidth: curves ? 34 : 14}},
          tooltip: {callbacks: {label: (at) => at.dataset.label + ': ' + write(curves ? at.parsed.y : at.parsed.x)}}
        }
      }
    }));
  }

  const repaint = () => charts.forEach(paint);
  root.classList.add('js');
  document.querySelectorAll('canvas[data-of]').forEach(draw);
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
