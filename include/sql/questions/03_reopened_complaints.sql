-- In which calls did the customer complain again after the agent had started to act, and when?
WITH steps AS (
    SELECT
        dt,
        call_id,
        phase_name,
        phase_index,
        start_s,
        duration_s,
        MIN(CASE WHEN phase_name = 'Resolution' THEN phase_index END) OVER (PARTITION BY dt, call_id) AS first_move
    FROM phases
)
SELECT
    dt,
    call_id,
    COUNT(*) AS times_reopened,
    MIN(start_s) AS first_reopened_at_s,
    SUM(duration_s) AS reopened_s
FROM steps
WHERE phase_name = 'Complaint' AND phase_index > first_move
GROUP BY dt, call_id
ORDER BY dt, call_id
