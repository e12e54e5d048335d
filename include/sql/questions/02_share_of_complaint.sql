-- How much of the time on the phone is spent on complaints, day by day?
WITH days AS (
    SELECT
        dt,
        SUM(CASE WHEN phase_name = 'Complaint' THEN duration_s ELSE 0 END) AS complaint_s,
        SUM(duration_s) AS all_s
    FROM phases
    GROUP BY dt
)
SELECT
    dt,
    complaint_s / 3600 AS complaint_hours,
    complaint_s / all_s AS share_of_complaint
FROM days
ORDER BY dt
