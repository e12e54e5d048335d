-- Which ten calls had the longest introductions?
SELECT
    dt,
    call_id,
    phase_index,
    duration_s,
    share_of_call,
    summary
FROM phases
WHERE phase_name = 'Introduction'
ORDER BY duration_s DESC, dt, call_id, phase_index
LIMIT 10
